#!/bin/sh
# What rvstate keeps on scratch and may remove: list it, measure it, remove it.
#   main list SCRATCH_TEMPLATE HOME QUEUE
#       Five fields a thing, each ended by NUL: KIND PATH DATE FLAGS TEXT.  KIND: clock, queue,
#       snapshot, generation, environment, run, workspace, original, and of a project's repository, by
#       the paths of its references, commit and experiment.  DATE: seconds since 1970 that rvstate wrote
#       down, or empty.  FLAGS: words.  TEXT: a run's job id and receipt, a workspace's identity, a
#       record of an original, the queue.
#   main measure (KIND PATH)...
#       A line for each: N BYTES INODES, what its removal frees if all before it are removed too: a
#       file with more names is freed with its last one.  Or `N foreign`: not all in it is ours.
#   main remove SCRATCH_TEMPLATE HOME QUEUE (KIND PATH USES)...
#       KIND: also branch, a generation that its branch's link may still lead to.  USES: how many
#       receipts named a generation when it was decided.  Says `done N`, `kept N REASON`, or
#       `failed N REASON` for each.
# QUEUE: a command line that lists the user's jobs with the ids of their runs.
# shellcheck shell=sh
# shellcheck disable=SC2154 # rv_* come from lib.sh, which travels in front

main() {
    verb=$1
    shift
    case $verb in
        measure) measure "$@" ;;
        *)
            rv_account "$1" "$2"
            rv_real "/{scratch}/.rv"
            rv=$rv_path
            rv_real "/{scratch}/rv-workspaces"
            spaces=$rv_path
            queue=$3
            shift 3
            # shellcheck disable=SC2034 # for the command line that is given
            rv_user=$(id -un)
            # without it nobody can tell what is needed
            listed=$(eval "$queue" 2>&1) ||
                rv_fail "the scheduler does not say which jobs there are (${listed##*"$rv_newline"}); nothing was removed" ||
                return 1
            if [ "$verb" = list ]; then list; else remove "$@"; fi
            ;;
    esac
}

thing() {
    printf '%s\0%s\0%s\0%s\0%s\0' "$1" "$2" "$3" "$4" "$5"
}

list() {
    rv_section things
    thing clock '' "$(date +%s)" '' ''
    thing queue '' '' '' "$listed"
    for place in "$spaces"/*/*; do
        if [ -L "$place" ] || ! [ -s "$place/identity" ]; then continue; fi
        thing workspace "$place" '' '' "$(cat "$place/identity")"
        for snapshot in "$place"/snapshots/*-????????-??????-????????; do
            if [ -d "$snapshot" ]; then thing snapshot "$snapshot" '' '' ''; fi
        done
    done
    for place in "$rv"/envs/*/.generations/*/*; do
        if [ -L "$place" ] || ! [ -d "$place" ]; then continue; fi
        flags=
        made=
        if [ -s "$place/.rvstate-environment" ]; then flags=stamped; fi
        if [ -s "$place/.rvstate/made" ]; then read -r made <"$place/.rvstate/made"; fi
        if pointed; then flags="$flags pointed"; fi
        thing generation "$place" "$made" "$flags" ''
    done
    for place in "$rv"/envs/*/.scripted/*; do
        if [ -d "$place" ]; then thing environment "$place" "$(cat "$place/whole" 2>/dev/null)" '' ''; fi
    done
    for store in "$spaces"/*/.repository; do
        if [ -s "$store/rvstate-identity" ]; then references; fi
    done
    for place in "$rv"/runs/????????-??????-????????; do
        [ -d "$place" ] || continue
        flags=
        for flag in keep intent exit claim; do
            if [ -e "$place/$flag" ]; then flags="$flags $flag"; fi
        done
        made=
        if [ -s "$place/intent" ]; then read -r made <"$place/intent"; fi
        thing run "$place" "$made" "$flags" "$(cat "$place/job" 2>/dev/null)
$(cat "$place/receipt.json" 2>/dev/null)"
    done
    for place in "$rv"/originals/*; do
        if [ -f "$place" ]; then thing original "$place" '' '' "$(cat "$place")"; fi
    done
}

# What $store has for jobs to start from, and of what jobs have made.
references() {
    newest=$(tail -n 3 "$store/rvstate-commits" 2>/dev/null)
    git -C "$store" for-each-ref --format='%(refname)' refs/rvstate/commits refs/rvstate/exps |
        while IFS= read -r reference; do
            flags=
            case $reference in
                refs/rvstate/commits/*)
                    # the next commits are sent as a difference to these
                    case $newest in *"${reference##*/}"*) flags=newest ;; esac
                    thing commit "$store/$reference" '' "$flags" ''
                    ;;
                *)
                    if is_pushed "$reference"; then flags=pushed; fi
                    thing experiment "$store/$reference" '' "$flags" ''
                    ;;
            esac
        done
}

# is_pushed REFERENCE: whether the run, or the element of an array, that made an experiment has said that it is pushed.
is_pushed() {
    made=${1#refs/rvstate/exps/}
    made=${made%%/*}
    id=$(printf '%s' "$made" | cut -c 1-24)
    element=${made#"$id"}
    grep -q -s '^pushed experiment ' "$rv/runs/$id${element:+/elements/${element#-}}/dvc"
}

# Whether the link of a branch leads to $place.
pointed() {
    branch=${place%/*}
    link=${branch%/.generations/*}/${branch##*/}
    [ "$(readlink "$link" 2>/dev/null)" = "$place" ]
}

measure() {
    number=0
    while [ $# -ge 2 ]; do
        if [ "$1" = workspace ] && foreign "$2"; then
            printf 'x %s\n' "$number"
        elif [ "$1" = commit ] || [ "$1" = experiment ]; then
            # git says what that frees when it has packed anew
            printf 'r %s\n' "$number"
        elif [ -e "$2" ]; then
            find "$2" -printf "$number %D:%i %n %b %y\\n" 2>/dev/null
        fi
        number=$((number + 1))
        shift 2
    done | awk '
        $1 == "x" { print $2, "foreign"; next }
        $1 == "r" { print $2, 0, 0; next }
        {
            if ($1 > last) last = $1
            # a directory counts its subdirectories as names of its own
            if ($5 != "d" && $3 > 1 && ++seen[$2] < $3) next
            bytes[$1] += $4 * 512
            inodes[$1]++
        }
        END { for (i = 0; i <= last; i++) if (i in inodes) printf "%d %.0f %d\n", i, bytes[i], inodes[i] }'
}

# foreign WORKSPACE: whether files lie in it that rvstate did not bring.
foreign() {
    for path in "$1"/aside-*; do
        if [ -e "$path" ]; then return 0; fi
    done
    # what a pipeline made, or was given
    if [ -n "$(find "$1/data" ! -type d -print 2>/dev/null | head -n 1)" ]; then return 0; fi
    [ -d "$1/code" ] || return 1
    [ -f "$1/files" ] || return 0
    [ -n "$({
        tr '\n\000' '\001\n' <"$1/files"
        printf '/\n'
        (cd -- "$1/code" && find . ! -type d -print0 | tr '\n\000' '\001\n')
    } | awk '$0 == "/" { found = 1; next } !found { sent[$0]; next } !($0 in sent) { print "x"; exit }')" ]
}

remove() {
    # what a killed run had put aside already
    for place in "$spaces"/*/*/snapshots/.gone-* "$rv"/envs/*/.generations/*/.gone-* "$rv"/envs/*/.scripted/.gone-*; do
        if [ -d "$place" ]; then remove_tree "$place"; fi
    done
    # and copies of what an environment was built from, whose environment went with a branch or by hand
    for kept in "$rv"/envs/*/.generations/*/.*.kept; do
        place=${kept%/.*}/$(basename "$kept" .kept | sed 's/^\.//')
        if [ -f "$kept" ] && ! [ -e "$place" ] && ! pointed; then rm -f "$kept"; fi
    done
    number=0
    failed=0
    packs=
    while [ $# -ge 3 ]; do
        # a shell of its own gives the lock back at its end
        reason=$(remove_one "$1" "$2" "$3" 2>&1)
        status=$?
        if [ "$status" = 2 ]; then
            printf 'kept %s %s\n' "$number" "${reason##*"$rv_newline"}"
        else
            rv_told "$number" "$status" "$reason"
            if [ "$status" != 0 ]; then failed=1; fi
        fi
        case $1 in
            commit | experiment) packs=$packs${2%%/refs/*}$rv_newline ;;
        esac
        number=$((number + 1))
        shift 3
    done
    printf '%s' "$packs" | sort -u | while IFS= read -r place; do pack "$place"; done
    return "$failed"
}

# pack STORE: let git give back what no reference leads to, unless a job reads it where it is.
pack() {
    for receipt in "$rv"/runs/????????-??????-????????/receipt.json; do
        id=${receipt%/receipt.json}
        case $listed in
            *"${id##*/}"*) if grep -q -s -F "/${1##*/rv-workspaces/}\"" "$receipt"; then return 0; fi ;;
        esac
    done
    # what arrives just now has no reference yet
    (rv_lock "$1.lock" 20 && git -C "$1" gc --quiet --prune=1.day.ago) >/dev/null 2>&1 </dev/null ||
        printf 'rvstate: git gc did not pack %s\n' "$1" >&2
}

# kept REASON: leave it, for the world has moved since it was decided.
kept() {
    printf '%s\n' "$1"
    exit 2
}

remove_one() {
    place=$2
    case $1 in
        commit | experiment)
            reference "$1" "${place%%/refs/*}" "refs/${place#*/refs/}"
            exit
            ;;
    esac
    [ -e "$place" ] || exit 0
    case $1 in
        environment)
            # a job makes it under the same lock
            hold "$place/lock"
            unused "$3" place || kept "a run has begun to use it"
            gone=${place%/*}/.gone-${place##*/}
            mv "$place" "$gone" && remove_tree "$gone"
            ;;
        snapshot)
            root=${place%/snapshots/*}
            [ "$root" != "$place" ] || exit 1
            hold "$root/lock"
            needed "$place"
            gone=$root/snapshots/.gone-${place##*/}
            rm -f "$root/snapshots/.${place##*/}.manifest" && mv "$place" "$gone" && remove_tree "$gone"
            ;;
        generation | branch)
            branch=${place%/*}
            hold "$branch/lock"
            unused "$3" || kept "a run has begun to use it"
            if pointed; then
                [ "$1" = branch ] || kept "its branch uses it again"
                rm -f "$link" || exit 1
            fi
            gone=$branch/.gone-${place##*/}
            # without its stamp nothing takes what is left of it for finished.  A run writes its
            # receipt before it looks for the stamp (submit.sh), so one of the two sees the other.
            stamp=$place/.rvstate-environment
            if [ -e "$stamp" ]; then mv "$stamp" "$stamp.pruned" || exit 1; fi
            if ! unused "$3"; then
                mv "$stamp.pruned" "$stamp"
                kept "a run has begun to use it"
            fi
            mv "$place" "$gone" && rm -f "$branch/.${place##*/}.kept" && remove_tree "$gone"
            ;;
        # these need no lock, and so they can go where no inode is left for one
        run)
            needed "$place"
            rm -rf "$place"
            ;;
        log) rm -f "$place" ;;
        workspace)
            hold "$place/lock"
            for snapshot in "$place"/snapshots/*-????????-??????-????????; do
                if [ -d "$snapshot" ]; then needed "$snapshot"; fi
            done
            if foreign "$place"; then kept "files lie in it that were not sent from here"; fi
            rm -f "$place/manifest" "$place/pristine.state" || exit 1
            for name in code pristine pristine.old incoming outgoing snapshots; do
                if [ -e "$place/$name" ]; then remove_tree "$place/$name" || exit 1; fi
            done
            rm -f "$place/files" "$place/since" "$place/renewed" "$place/pristine.manifest" \
                "$place/identity" "$place/lock"
            rmdir "$place" 2>/dev/null || kept "other files lie in it; rvstate's own are gone"
            rmdir "${place%/*}" 2>/dev/null || :
            ;;
        *) rv_fail "prune: unknown kind $1" || exit 1 ;;
    esac
}

# hold LOCK: take it, and end well where another one of us has removed $place meanwhile.
hold() {
    rv_lock "$1" 20 || { [ -e "$place" ] && exit 1; }
    [ -e "$place" ] || exit 0
}

# reference KIND STORE NAME: remove one of a repository.
reference() {
    place=$2
    hold "$2.lock"
    if [ "$1" = experiment ]; then
        made=${3#refs/rvstate/exps/}
        needed "x/$(printf '%s' "$made" | cut -c 1-24)"
        is_pushed "$3" || kept "nobody has said that it is pushed"
    else
        if grep -q -s -F "${3##*/}" "$rv"/runs/*/receipt.json; then kept "a run names it"; fi
        # first from the list against which new ones are sent
        if [ -f "$2/rvstate-commits" ]; then
            grep -v -x -F -e "${3##*/}" "$2/rvstate-commits" | rv_store "$2/rvstate-commits" 600 || exit 1
        fi
    fi
    git -C "$2" update-ref -d "$3"
}

# unused COUNT [KEY]: whether no more receipts name the environment than when it was decided.
unused() {
    # where it ends; scratch's own name may be written in JSON's escapes
    uses=$(grep -l -e "\"${2:-environment}\": \"[^\"]*/envs/${place##*/envs/}\"" "$rv"/runs/*/receipt.json 2>/dev/null | grep -c .)
    [ "${uses:-0}" -le "$1" ]
}

# needed PATH: leave it if a job needs the run whose id ends the path.
needed() {
    stem=${1%-????????-??????-????????}
    id=${1#"$stem"-}
    if [ "$stem" = "$1" ]; then id=${1##*/}; fi
    if [ -e "$rv/runs/$id/keep" ]; then kept "it is to be kept"; fi
    # a run that has a job gets no other one; any other may just have got one
    if [ -d "$rv/runs/$id" ] && ! [ -s "$rv/runs/$id/job" ]; then
        listed=$(eval "$queue" 2>/dev/null) || kept "the scheduler does not say which jobs there are"
    fi
    case $listed in
        *"$id"*) kept "a job needs it" ;;
    esac
}

# Directories that were made read-only would keep their contents.
remove_tree() {
    rm -rf "$1" 2>/dev/null && return 0
    find "$1" -type d ! -perm -700 -exec chmod u+rwx {} + 2>/dev/null
    rm -rf "$1"
}
