"""Fast computation: nothing repeated without need, products in pieces or packed, gradients written out."""
