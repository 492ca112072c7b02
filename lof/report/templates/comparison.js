"use strict";
const [viewer, left, right, zoom, flicker, stage, under, over, line, slider, seen] =
  ["viewer", "left", "right", "zoom", "flicker", "stage", "under", "over", "line", "slider", "seen"].map(
    (id) => document.getElementById(id));
const [seenLeft, seenRight] = seen.children;
let timer = null;
let turn = 0;

function draw() {
  const image = document.getElementById(left.value);
  const width = Number(image.getAttribute("width"));
  const factor = Number(zoom.value);
  over.src = image.src;
  under.src = document.getElementById(right.value).src;
  stage.classList.toggle("smooth", !factor);
  stage.style.width = factor ? `${(width * factor) / devicePixelRatio}px` : `min(100%, ${Math.max(width, 320)}px)`;
  const share = timer ? 100 * ((turn + 1) % 2) : Number(slider.value);
  over.style.clipPath = `inset(0 ${100 - share}% 0 0)`;
  line.style.left = `${share}%`;
  line.hidden = slider.hidden = Boolean(timer);
  flicker.textContent = timer ? "stop" : "flicker";
  seenLeft.textContent = timer && turn ? "" : left.selectedOptions[0].text;
  seenRight.textContent = timer && !turn ? "" : right.selectedOptions[0].text;
}

function drag(event) {
  if (!event.buttons || timer) return;
  const box = stage.getBoundingClientRect();
  slider.value = (100 * (event.clientX - box.left)) / box.width;
  draw();
}

for (const control of [left, right, zoom, slider]) control.addEventListener("input", draw);
for (const event of ["pointerdown", "pointermove"]) stage.addEventListener(event, drag);
flicker.addEventListener("click", () => {
  if (timer) clearInterval(timer);
  timer = timer ? null : setInterval(() => { turn = 1 - turn; draw(); }, 600);
  turn = 0;
  draw();
});
viewer.hidden = false;
draw();
