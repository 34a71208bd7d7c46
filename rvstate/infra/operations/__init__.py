"""One pyinfra operation for each kind of resource."""
