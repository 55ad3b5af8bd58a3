#!/bin/bash
# Runs once, after InfluxDB's first start: the two users that may not do everything.
# The agent reads and writes the bucket; Grafana reads it. Both speak the API of InfluxDB 1.x, which 2.x serves.
set -euo pipefail

as_user() {    # name, file with the password, rights
    local name=$1 file=$2
    shift 2
    influx v1 auth create --org "$DOCKER_INFLUXDB_INIT_ORG" --username "$name" --password "$(cat "$file")" "$@" >/dev/null
    echo "made the user $name"
}

bucket=$DOCKER_INFLUXDB_INIT_BUCKET_ID
influx v1 dbrp create --org "$DOCKER_INFLUXDB_INIT_ORG" --bucket-id "$bucket" \
    --db "$DOCKER_INFLUXDB_INIT_BUCKET" --rp autogen --default >/dev/null
as_user agent /run/secrets/agent-password --read-bucket "$bucket" --write-bucket "$bucket"
as_user grafana /run/secrets/grafana-password --read-bucket "$bucket"
