"""The methods SCOPE is compared with, one file each."""
