"""What a loop computes, before it is printed in a language: places, scalar expressions, and loops over them."""
