"""How products are made: what need not be repeated, in pieces, packed, with gradients written out."""
