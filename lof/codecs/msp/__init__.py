"""The multi-scale progressive codec (MSP): one probability model, evaluated a fixed number of times per image.

After Zhang et al. 2022. ``config`` says what a tier is, ``layout`` in which order latents are coded, ``prior`` is
the probability model, ``transforms`` the image's way in and out, ``network`` all of it as one module, ``decoder``
the standard decoder, which stands alone, ``codec`` the codec behind lof's contract. ``FORMAT.md`` describes the
syntax for whoever writes another decoder.
"""
