"""Commands for the data folder of a broker."""
