#!/bin/sh
# Installs gpupipe from this source tree into a new virtual environment. Both images do this; so may you, without them:
#
#     docker/install.sh FOLDER [cpu|cu12|cu13]
#
# It needs Python 3.11 or newer (PYTHON=python3.12 chooses one) with its headers, and a C++ compiler. FOLDER gets
# Python, gpupipe and the packages of constraints-*.txt, and neither pip nor a compiler. Nothing is written elsewhere.
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    sed -n '4p' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "$0")/.." && pwd)
target=$1
kind=${2:-cpu}
case $kind in
cpu) extra= ;;
cu12 | cu13) extra="[$kind]" ;;
*)
    echo "install.sh: $kind: expected cpu, cu12 or cu13" >&2
    exit 2
    ;;
esac
if [ -e "$target" ]; then
    echo "install.sh: $target is there already: remove it or name another folder" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# The wheel, from a copy: building writes beside the sources, and what an earlier build left there would go into it.
mkdir "$work/tree"
for part in LICENSE MANIFEST.in NOTICE README.md csrc gpupipe pyproject.toml setup.py; do
    cp -R "$here/$part" "$work/tree/"
done
find "$work/tree" -name '*.so' -delete
rm -f "$work/tree/csrc/_native.cpp"
"${PYTHON:-python3}" -m venv "$work/tools"
pip() {
    "$work/tools/bin/python" -m pip -q "$@"
}
pip install -r "$here/docker/constraints-build.txt"
pip wheel --no-deps --no-build-isolation -w "$work/wheel" "$work/tree"

# A package that is not in the list has no version of its own to be held to: that is a mistake, not a choice.
"${PYTHON:-python3}" -m venv --without-pip "$target"
constraints="$here/docker/constraints-$kind.txt"
for wheel in "$work"/wheel/gpupipe-*.whl; do
    pip --python "$target/bin/python" install -c "$constraints" "$wheel$extra"
done
pip --python "$target/bin/python" freeze --exclude gpupipe | tr '[:upper:]_' '[:lower:]-' >"$work/installed"
if grep -vxFf "$constraints" "$work/installed" >&2; then
    echo "install.sh: the packages above are not in $constraints: run docker/constraints.py" >&2
    exit 1
fi
pip --python "$target/bin/python" check

"$target/bin/gpupipe" --version
"$target/bin/gpupipe" doctor
"$target/bin/gpupipe" doctor --require ffmpeg >/dev/null
