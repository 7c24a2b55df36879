"""The controllers' image, as far as it can be proven where no image can be built."""
