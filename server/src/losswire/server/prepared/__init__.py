"""How an evaluation is answered without decoding it: evaluations that were met before."""
