// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! `bootorder`: which devices the firmware boots from, in which order.
//!
//! Both firmwares translate these Open Firmware names to their own device paths, drop other boot
//! options on PCI devices, and connect only what is named, which shortens the boot.

use std::fmt;

/// The fw_cfg file's name.
pub const FILE: &str = "bootorder";

/// A device to boot from, by its slot on PCI bus 0, function 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootDevice {
    /// The unit 0 of target 0 of a virtio-scsi controller: the CD drive.
    ScsiDisk {
        /// The controller's slot.
        slot: u8,
    },
    /// A virtio-blk disk.
    Block {
        /// Its slot.
        slot: u8,
    },
    /// A network card.
    Network {
        /// Its slot.
        slot: u8,
    },
}

impl fmt::Display for BootDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ScsiDisk { slot } => write!(f, "/pci@i0cf8/scsi@{slot:x}/channel@0/disk@0,0"),
            Self::Block { slot } => write!(f, "/pci@i0cf8/scsi@{slot:x}/disk@0,0"),
            Self::Network { slot } => write!(f, "/pci@i0cf8/ethernet@{slot:x}/ethernet-phy@0"),
        }
    }
}

/// The file's content: a line for each device; the last byte is NUL, without which the firmware
/// ignores the file. Without devices the file is better left out.
pub fn file(devices: &[BootDevice]) -> Vec<u8> {
    let lines: Vec<String> = devices.iter().map(ToString::to_string).collect();
    let mut file = lines.join("\n").into_bytes();
    file.push(0);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_the_firmware_reads_them() {
        let file = file(&[
            BootDevice::ScsiDisk { slot: 3 },
            BootDevice::Block { slot: 4 },
            BootDevice::Network { slot: 30 },
        ]);
        assert_eq!(
            file,
            b"/pci@i0cf8/scsi@3/channel@0/disk@0,0\n/pci@i0cf8/scsi@4/disk@0,0\n\
              /pci@i0cf8/ethernet@1e/ethernet-phy@0\0"
        );
    }
}
