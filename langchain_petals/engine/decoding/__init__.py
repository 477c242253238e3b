"""From hidden states to text: the token loop, sampling, detokenizing, beam search."""
