// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! A SCSI host with one target, whose LUN 0 is a CD-ROM drive (VIRTIO 1.2, section 5.6).

use std::sync::Arc;

use super::scsi_cd::{Data, Sense};
use super::{BadBuffer, Chain, Kind, Ring, ScsiCd, VirtioDevice};
use crate::vm::dev::lanes;

const CONTROL: usize = 0;
const EVENT: usize = 1;

const SENSE_SIZE: usize = 96;
const CDB_SIZE: usize = 32;
const REQUEST: usize = 19 + CDB_SIZE;
const RESPONSE: usize = 12 + SENSE_SIZE;

const RESPONSE_OK: u8 = 0;
const RESPONSE_OVERRUN: u8 = 1;
const RESPONSE_BAD_TARGET: u8 = 3;
const CHECK_CONDITION: u8 = 2;

/// The host of a CD-ROM drive.
pub struct Scsi {
    drive: Arc<ScsiCd>,
}

impl Scsi {
    /// A host with this drive as its only device.
    pub fn new(drive: Arc<ScsiCd>) -> Arc<Self> {
        Arc::new(Self { drive })
    }

    /// Task management and asynchronous notification: everything is finished already, and nothing
    /// is ever notified.
    fn control(chain: &mut Chain) -> Result<(), BadBuffer> {
        let mut kind = [0; 4];
        chain.readable.read(&mut kind)?;
        match u32::from_le_bytes(kind) {
            0 => chain.writable.write(&[RESPONSE_OK]),
            _ => chain.writable.write(&[0, 0, 0, 0, RESPONSE_OK]),
        }
    }

    /// One command. `None` when it is given up for a reset.
    fn command(&self, chain: &mut Chain, ring: &Ring) -> Option<Result<(), BadBuffer>> {
        let mut request = [0; REQUEST];
        let mut answer = match chain.readable.read(&mut request) {
            Ok(()) => match chain.writable.take_front(RESPONSE as u32) {
                Ok(answer) => answer,
                Err(bad) => return Some(Err(bad)),
            },
            Err(bad) => return Some(Err(bad)),
        };
        let mut cdb = [0; CDB_SIZE];
        cdb.copy_from_slice(request.get(19..).unwrap_or(&[0; CDB_SIZE]));
        let mut response = [0; RESPONSE];
        match lun(&request) {
            None => lanes::put(&mut response, 11, [RESPONSE_BAD_TARGET]),
            Some(lun) => {
                let mut data = Data::new(&mut chain.writable);
                let result = self.drive.execute(&cdb, lun, &mut data, &|| ring.is_cancelled());
                if let Err(sense) = result {
                    lanes::put(&mut response, 0, (sense.bytes().len() as u32).to_le_bytes());
                    lanes::put(&mut response, 10, [CHECK_CONDITION]);
                    lanes::put(&mut response, 12, sense.bytes());
                }
                if data.is_overrun() {
                    lanes::put(&mut response, 11, [RESPONSE_OVERRUN]);
                }
                if result == Err(Sense::CANCELLED) {
                    return None;
                }
            }
        }
        let residual = u32::try_from(chain.writable.left()).unwrap_or(u32::MAX);
        lanes::put(&mut response, 4, residual.to_le_bytes());
        Some(answer.write(&response).map(|()| chain.writable.add_written(RESPONSE as u32)))
    }
}

/// The logical unit of target 0 that a request is for. `None` for other targets.
fn lun(request: &[u8; REQUEST]) -> Option<u16> {
    match request {
        [1, 0, high, low, ..] => Some(u16::from(high & 0x3f) << 8 | u16::from(*low)),
        _ => None,
    }
}

impl VirtioDevice for Scsi {
    fn kind(&self) -> Kind {
        Kind::Scsi
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![64, 64, 128]
    }

    fn config(&self) -> Vec<u8> {
        let mut config = vec![0; 0x24];
        lanes::put(&mut config, 0x00, 1u32.to_le_bytes());
        lanes::put(&mut config, 0x04, 126u32.to_le_bytes());
        lanes::put(&mut config, 0x08, 0xffffu32.to_le_bytes());
        lanes::put(&mut config, 0x0c, 64u32.to_le_bytes());
        lanes::put(&mut config, 0x10, 16u32.to_le_bytes());
        lanes::put(&mut config, 0x14, (SENSE_SIZE as u32).to_le_bytes());
        lanes::put(&mut config, 0x18, (CDB_SIZE as u32).to_le_bytes());
        config
    }

    fn serve(&self, queue: usize, ring: &mut Ring) {
        // Event buffers stay with the device: nothing here comes or goes.
        if queue == EVENT {
            return;
        }
        while let Some(mut chain) = ring.take() {
            let result = match queue {
                CONTROL => Self::control(&mut chain),
                _ => match self.command(&mut chain, ring) {
                    Some(result) => result,
                    None => return,
                },
            };
            if result.is_err() {
                tracing::debug!(queue, "a SCSI request is malformed");
            }
            ring.done(&chain);
        }
    }
}

#[cfg(test)]
#[path = "scsi_tests.rs"]
mod tests;
