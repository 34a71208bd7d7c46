#!/bin/sh
# What keepalive says: how old the files are, what the site's own list names, and how runs went.
#   report CACHE...   count CACHE...   recall   remember
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, the rest from keepalive.sh, which travels behind

# Keep how this run went, for `status`; where there is no room, what was kept stays.
remember() {
    {
        printf 'ended %s\naction %s\n' "$(date +%s)" "$action"
        printf '%s\n' "$said" | grep -E '^(found|risk|troubles|trouble) '
    } | rv_store "$kept/last" 600 2>/dev/null || printf 'unkept\n'
}

# report CACHE...: "place FILES BYTES RISK OLDEST VICTIMS NAME" for each place, OLDEST in seconds
# since 1970; then what is known of earlier runs.
report() {
    limit=$(($(date +%s) - half * 60))
    listed=$(doomed "$@")
    exec 4>&1
    for place in account environments workspaces "$@"; do
        start "$place" | dates | awk -v limit="$limit" -v clock="$clock" '
            { age = clock == "mtime" ? $2 : $1; files++; bytes += $4 }
            clock == "atime-or-ctime" && $3 > age || clock == "atime-and-mtime" && $2 < age {
                age = clock == "atime-or-ctime" ? $3 : $2 }
            age < limit { risk++ }
            !oldest || age < oldest { oldest = age }
            END { printf "place %d %.0f %d %d", files, bytes, risk, oldest }' >&4
        number=$(printf '%s\n' "$listed" | sed -n "s/ $place\$//p")
        printf ' %s %s\n' "${number:-0}" "$place" >&4
    done 2>&1 | complaints
    exec 4>&-
    printf '%s\n' "$listed" | sed -n 's/^\([0-9]*\) \.$/victims \1/p'
    recall
}

# What is kept of earlier runs and of the schedule: `success EPOCH`, `last WORD...`, `schedule KIND
# NODE TIME`, `next EPOCH`, `scheduled WORD...`.
recall() {
    if [ -e "$kept/success" ]; then printf 'success %s\n' "$(date_of "$kept/success")"; fi
    sed 's/^/last /' "$kept/last" 2>/dev/null
    [ -s "$rv/schedule/record" ] || return 0
    read -r kind node time <"$rv/schedule/record"
    printf 'schedule %s %s %s\n' "$kind" "$node" "$time"
    sed 's/^/scheduled /' "$rv/schedule/last" 2>/dev/null
    if [ "$kind" = sbatch-chain ]; then
        rv_chain 2>/dev/null | sed -n '1s/.* /next /p'
        return 0
    fi
    # only GNU's date knows the time of a day; without it there is no such line
    next=$(date -d "$time" +%s 2>/dev/null) || return 0
    if [ "$next" -le "$(date +%s)" ]; then next=$((next + 86400)); fi
    printf 'next %s\n' "$next"
}

# A report whose sum is kept as well.
count() {
    said=$(report "$@")
    printf '%s\n' "$said"
    said=$(printf '%s\n' "$said" | awk '
        $1 == "place" { risk += $4 }
        /^troubles? / { print }
        END { printf "risk %d\n", risk }')
    (umask 077 && mkdir -p "$kept") && remember
}

# "ATIME MTIME CTIME BYTES" for each of the user's own files in the trees whose names come in.
dates() {
    # shellcheck disable=SC2016 # expanded there
    xargs -0 sh -c '
        uid=$1 race=$2 gnu=$3
        shift 3
        [ $# -gt 0 ] || exit 0
        if [ "$gnu" = yes ]; then
            find "$@" $race -xdev -type d ! -user "$uid" -prune -o \
                \( -type f -o -type l \) -user "$uid" -printf "%A@ %T@ %C@ %s\n"
        else
            find "$@" -xdev -type d ! -user "$uid" -prune -o \
                \( -type f -o -type l \) -user "$uid" -exec stat -f "%a %m %c %z" {} +
        fi
    ' sh "$uid" "$race" "$gnu"
}

date_of() {
    stat -c %Y "$1" 2>/dev/null || stat -f %m "$1"
}

# doomed PLACE...: what the site's own list says will be purged, "N PLACE", and in all "N .".
doomed() {
    [ -n "$victims" ] || return 0
    rv_expand "$victims"
    # without the tool nobody knows, which is not none
    command -v "${rv_text%% *}" >/dev/null 2>&1 || return 0
    prefixes=environments=/.rv/envs/${rv_newline}account=/.rv/${rv_newline}workspaces=/rv-workspaces/
    for name; do prefixes=$prefixes$rv_newline$name=/.cache/$name/; done
    # the list names scratch as the user or as the file server does
    sh -c "$rv_text" 2>/dev/null </dev/null |
        RV_OWN=$rv_scratch RV_REAL=$real RV_PREFIXES=$prefixes awk '
        BEGIN { own = ENVIRON["RV_OWN"]; other = ENVIRON["RV_REAL"]
            many = split(ENVIRON["RV_PREFIXES"], line, "\n")
            for (i = 1; i <= many; i++) { at = index(line[i], "=")
                name[i] = substr(line[i], 1, at - 1); path[i] = substr(line[i], at + 1) } }
        { total += index($0, own "/") > 0 || index($0, other "/") > 0
          for (i = 1; i <= many; i++)
              if (index($0, own path[i]) || index($0, other path[i])) { count[i]++; break } }
        END { for (i = 1; i <= many; i++) printf "%d %s\n", count[i], name[i]
            printf "%d .\n", total }'
}
