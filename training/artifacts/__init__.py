"""The files of a version besides its model: card, golden rows, reference."""
