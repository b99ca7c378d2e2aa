"""Image-text retrieval with region features: TERN, SGRAF and their neighbours."""
