# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

# shellcheck shell=sh
# The answer file of the tiny installer: a shell script that its functions serve.
say "Installing {{ .Name }}"
partition_disk /dev/vda
install_system
set_hostname '{{ .hostname }}'
set_root_password '{{ .RootPasswordHash }}'
authorize_root_key '{{ .SSHPublicKey }}'
