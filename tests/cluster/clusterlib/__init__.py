"""The mini-cluster's own code; standard library only, for any Python from 3.11 on."""
