echo "*** reminder: scratch is purged after 90 days ***"
echo "Loading your conda ..." >&2
stty erase ^H
