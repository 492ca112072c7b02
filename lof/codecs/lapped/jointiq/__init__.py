"""JointIQ: lapped's transforms with a better probability model, and a network that repairs the picture behind them.

After Lee, Cho, Kim 2019 (arXiv 1912.12817). ``config`` says what a codec is made of; ``prior`` predicts mixtures of
Gaussians and refines them, in two passes or in waves; ``context`` is what it recalls of all that is decoded nearby;
``bits`` prices mixtures; ``enhancement`` is the network behind the synthesis; ``network`` all of it as one module,
``decoder`` the standard decoder, ``codec`` the codec behind lof's contract, ``training`` how it is trained. Each part
can be left out. What is not here is lapped's own. ``FORMAT.md`` describes the syntax.
"""
