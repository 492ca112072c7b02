"""Factorised priors, hyperpriors and the serial context, as CompressAI implements them."""
