#!/bin/bash
# Stand-in for the official safe_sleep.sh.
exec sleep "$1"
