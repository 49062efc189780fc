"""Inference engines behind one seam: token ids in, token ids out."""
