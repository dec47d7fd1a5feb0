#!/bin/sh
# The command line of Docker in tests: notes each call in the folder that it is linked into, and answers as the files
# there say.
folder=$(dirname "$0")
call=
for word; do
    case $word in *' '*|'') word="<$word>" ;; esac
    call="$call${call:+ }$word"
done
printf '%s\n' "$call" >>"$folder/calls"
said() { cat "$folder/$1" 2>/dev/null || echo "$2"; }
case $call in
version*) echo "'$(said version 1.41)'" ;;
'ps --all --quiet '*) said leftovers '' ;;
'ps --all --filter id='*status=running*) said running "${4#id=} Up 1 second" ;;
create*) echo "container-$(grep -c '^create' "$folder/calls")" ;;
'inspect --format '*) printf 'LANG=C\nPATH=/image/bin\n' ;;
'inspect <--format={{if '*)
    said health '' | head -n 1
    test ! -e "$folder/health" || sed -i 1d "$folder/health"
    ;;
pull*) exit "$(said pull 0)" ;;
esac
