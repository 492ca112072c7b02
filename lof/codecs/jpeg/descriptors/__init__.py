"""A JPEG with descriptors: a few bits for 16×16 pixels that steer a filter of the decoded picture (Ma, Liu, Wu 2020).

``config`` says what the network is made of; ``filter`` is what the decoder adds, by the network of ``patches`` or that
of the paper, ``edsr``; ``extraction`` is the choice of descriptors in training; ``network`` is both as one module,
with the probabilities of descriptors; ``pictures`` goes from coefficients to pictures, ``search`` finds both,
``codec`` is the codec behind lof's contract. What codes descriptors is :mod:`lof.codecs.descriptors`.
"""
