"""The methods that SCOPE is compared with, one file each."""
