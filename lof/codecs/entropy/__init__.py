"""Entropy coding that several families share: rANS, tables of frequencies, mixtures, exact integer networks."""
