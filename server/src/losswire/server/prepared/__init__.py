"""How is an evaluation answered without decoding it? By the bytes of requests seen before."""
