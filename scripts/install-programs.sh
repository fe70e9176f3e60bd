#!/usr/bin/env bash
# Install Topaz (GPL-3.0) in an environment of its own, and write a file of programs that names it; does nothing where it is there.
set -euo pipefail

folder=${1:?usage: install-programs.sh FOLDER [PYTHON]}
python=${2:-python3}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# torchvision has to be built for the very PyTorch beside it: Topaz does not start otherwise.
topaz=(torch==2.14.1 torchvision==0.29.1 topaz-em==0.3.20)

if ! "$folder/topaz/bin/topaz" --version >/dev/null 2>&1; then
    echo "installing ${topaz[*]} in $folder/topaz"
    "$python" -m venv --clear "$folder/topaz"
    "$folder/topaz/bin/python" -m pip install --quiet "${topaz[@]}"
fi

cat >"$folder/programs.yaml" <<YAML
topaz:
  prefix: $folder/topaz
  licence: GPL-3.0
  citation: Bepler et al. (2019), Nat. Methods 16:1153-1160
YAML
echo "ICESTREAM_PROGRAMS=$folder/programs.yaml"
