#!/usr/bin/env bash
# Makes the weights that come with lung_d2 from the data: bash tools/studies/make_weights.sh SLICES LESION_FREE OUTPUT
#   SLICES       covid_slices (datasets/README.md), with split.csv
#   LESION_FREE  a folder for each patient: a chest CT in DICOM without lesions, and a mask (1) over slices in doubt
# Stopped and started again it goes on where it was. Then OUTPUT holds the run and mask_rcnn_R_50_FPN_both.safetensors.
set -euo pipefail
[ $# = 3 ] || { sed -n 2,5p "$0" >&2; exit 2; }
SLICES="$(realpath "$1")" LESION_FREE="$(realpath "$2")" OUTPUT="$(realpath -m "$3")"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
DATA="${DETECTRON2_DATASETS:-datasets}/lung_ct"

[ -e "$DATA/covid_slices" ] || python tools/prepare_dataset.py slices "$SLICES" --images ct \
    --masks covid=ground_glass_opacity --lungs lungs --split-file "$SLICES/split.csv" --name covid_slices
[ -e "$DATA/lesion_free" ] || python tools/prepare_dataset.py dicom "$LESION_FREE" --allow-unannotated \
    --label 1=ignore --val-fraction 0 --lesion-free-ratio inf --name lesion_free
[ -e datasets/ct_backbone/both/ct_resnet50.pth ] || python tools/make_ct_backbone.py \
    --output datasets/ct_backbone/both INPUT.CT.GREY minmax_clahe DATASETS.TRAIN "('covid_slices_train',)"
python tools/train_net.py --resume --config-file configs/quick_schedules/mask_rcnn_R_50_FPN_both.yaml \
    OUTPUT_DIR "$OUTPUT"
python tools/export_weights.py --config-file "$OUTPUT/config.yaml" --weights "$OUTPUT/model_final.pth" \
    --output "$OUTPUT/mask_rcnn_R_50_FPN_both.safetensors" \
    --evaluation "$OUTPUT/inference/covid_slices_val/evaluation.json" \
    --licence "research only, see lung_d2/weights/README.md"
