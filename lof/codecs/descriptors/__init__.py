"""Descriptors: a few bits of side information for each 16×16 pixels, which steer a filter (Ma, Liu, Wu 2020).

What families of codecs share: ``classes`` says what a descriptor is, ``context`` is the probability model, ``strings``
codes maps of descriptors, ``choice`` searches for the best map. The filters are the families' own.
"""
