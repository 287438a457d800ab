"""What a retrain needs beside a training: the record of a build, kept steps, the champion now."""
