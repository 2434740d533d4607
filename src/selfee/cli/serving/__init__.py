"""What ``selfee serve`` needs beside its flags."""
