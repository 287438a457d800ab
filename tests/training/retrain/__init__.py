"""Tests of what a retrain needs beside a training."""
