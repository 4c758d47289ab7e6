// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::FileExt;

use proptest::prelude::*;

use super::super::mock::{Driver, Part, VERSION_1};
use super::super::{RawFile, ScsiCd};
use super::*;

const REQUESTS: u16 = 2;
/// Two and a half blocks.
const SIZE: u64 = 5120;

struct Answer {
    status: u8,
    response: u8,
    sense: [u8; 3],
    residual: u32,
    data: Vec<u8>,
}

fn iso(size: u64) -> RawFile {
    let file = tempfile::tempfile().unwrap();
    let content: Vec<u8> = (0..size).map(|byte| (byte / 512 + 1) as u8).collect();
    file.write_all_at(&content, 0).unwrap();
    RawFile::from_file(file, true).unwrap()
}

fn driver() -> (Driver, Arc<ScsiCd>) {
    let drive = ScsiCd::new(Arc::new(iso(SIZE)));
    let mut driver = Driver::new(Scsi::new(Arc::clone(&drive)));
    driver.start(VERSION_1);
    (driver, drive)
}

fn command_to(driver: &mut Driver, lun: [u8; 4], cdb: &[u8], room: u32) -> Answer {
    let mut request = lun.to_vec();
    request.extend([0; 15]);
    request.extend(cdb);
    request.resize(REQUEST, 0);
    let parts = [Part::Out(&request), Part::In(RESPONSE as u32), Part::In(room)];
    let (written, content) = driver.request(REQUESTS, if room > 0 { &parts } else { &parts[..2] });
    let (response, data) = content.split_at(RESPONSE);
    let residual = u32::from_le_bytes(response[4..8].try_into().unwrap());
    assert_eq!(written, RESPONSE as u32 + room - residual);
    assert_eq!(response[0] == 18, response[10] == 2);
    Answer {
        status: response[10],
        response: response[11],
        sense: [response[14] & 0xf, response[24], response[25]],
        residual,
        data: data[..(room - residual) as usize].to_vec(),
    }
}

fn command(driver: &mut Driver, cdb: &[u8], room: u32) -> Answer {
    command_to(driver, [1, 0, 0x40, 0], cdb, room)
}

fn good(driver: &mut Driver, cdb: &[u8], room: u32) -> Vec<u8> {
    let answer = command(driver, cdb, room);
    assert_eq!((answer.status, answer.response, answer.sense), (0, 0, [0; 3]), "{cdb:x?}");
    answer.data
}

fn refused(driver: &mut Driver, cdb: &[u8]) -> [u8; 3] {
    let answer = command(driver, cdb, 64);
    assert_eq!((answer.status, answer.residual), (2, 64), "{cdb:x?}");
    answer.sense
}

#[test]
fn the_host_has_one_target() {
    let (driver, _) = driver();
    assert_eq!(driver.get::<4>(0x2000), [1, 0, 0, 0]);
    assert_eq!(driver.get::<8>(0x2014), [96, 0, 0, 0, 32, 0, 0, 0]);
    assert_eq!(driver.get::<8>(0x201c), [0; 8]);
    // Linux and edk2 write the sizes that they use.
    driver.set(0x2014, [96, 0, 0, 0]);
    assert_eq!(driver.get::<4>(0x2014), [96, 0, 0, 0]);
}

#[test]
fn only_lun_0_of_target_0_is_there() {
    let (mut driver, _) = driver();
    let test = [0; 6];
    assert_eq!(command_to(&mut driver, [1, 1, 0x40, 0], &test, 0).response, 3);
    assert_eq!(command_to(&mut driver, [0xc1, 1, 0, 0], &test, 0).response, 3);
    let answer = command_to(&mut driver, [1, 0, 0x40, 1], &test, 0);
    assert_eq!((answer.response, answer.sense), (0, [5, 0x25, 0]));
    let inquiry = [0x12, 0, 0, 0, 36, 0];
    assert_eq!(command_to(&mut driver, [1, 0, 0x40, 1], &inquiry, 36).data[0], 0x7f);
    let luns = [0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0];
    assert_eq!(good(&mut driver, &luns, 16), [0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn it_is_a_cd_rom_drive() {
    let (mut driver, _) = driver();
    let inquiry = good(&mut driver, &[0x12, 0, 0, 0, 96, 0], 96);
    assert_eq!((inquiry.len(), &inquiry[..5]), (36, [5, 0x80, 5, 2, 31].as_slice()));
    assert_eq!(good(&mut driver, &[0x12, 0, 0, 0, 5, 0], 96).len(), 5);
    assert_eq!(good(&mut driver, &[0x12, 1, 0, 0, 96, 0], 96), [5, 0, 0, 3, 0, 0x80, 0x83]);
    assert_eq!(good(&mut driver, &[0x12, 1, 0x80, 0, 96, 0], 96)[..4], [5, 0x80, 0, 4]);
    assert_eq!(good(&mut driver, &[0x12, 1, 0x83, 0, 96, 0], 96)[3], 16);
    assert_eq!(refused(&mut driver, &[0x12, 1, 0xb0, 0, 64, 0]), [5, 0x24, 0]);
    let page = good(&mut driver, &[0x1a, 8, 0x2a, 0, 128, 0], 128);
    assert_eq!((page[0] as usize, page[1], page[4], page[5]), (page.len() - 1, 1, 0x2a, 20));
    let page = good(&mut driver, &[0x5a, 8, 0x3f, 0, 0, 0, 0, 0, 128, 0], 128);
    assert_eq!((page[1] as usize, page[8], page[20]), (page.len() - 2, 1, 0x2a));
    assert_eq!(refused(&mut driver, &[0x1a, 0, 0x08, 0, 64, 0]), [5, 0x24, 0]);
    assert_eq!(refused(&mut driver, &[0x1a, 0, 0xea, 0, 64, 0]), [5, 0x39, 0]);
    // What udev asks.
    let configuration = good(&mut driver, &[0x46, 0, 0, 0, 0, 0, 0, 0, 255, 0], 255);
    assert_eq!(configuration[3] as usize, configuration.len() - 4);
    assert_eq!(configuration[6..8], [0, 8], "a CD");
    assert_eq!(good(&mut driver, &[0x46, 2, 0, 3, 0, 0, 0, 0, 255, 0], 255)[8..10], [0, 3]);
    assert_eq!(
        good(&mut driver, &[0x51, 0, 0, 0, 0, 0, 0, 0, 34, 0], 34)[..5],
        [0, 32, 0x0e, 1, 1]
    );
    let toc = good(&mut driver, &[0x43, 0, 0, 0, 0, 0, 0, 0, 128, 0], 128);
    assert_eq!(toc, [0, 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0, 0, 0x14, 0xaa, 0, 0, 0, 0, 3]);
    let toc = good(&mut driver, &[0x43, 2, 0, 0, 0, 0, 0xaa, 0, 128, 0], 128);
    assert_eq!(toc[8..], [0, 0, 2, 3]);
    assert_eq!(refused(&mut driver, &[0x43, 0, 5, 0, 0, 0, 0, 0, 64, 0]), [5, 0x24, 0]);
    assert_eq!(refused(&mut driver, &[0xff]), [5, 0x20, 0]);
    assert_eq!(good(&mut driver, &[3, 0, 0, 0, 18, 0], 18)[2], 0);
}

#[test]
fn a_medium_of_many_blocks_is_a_dvd() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4 << 30).unwrap();
    let disk = RawFile::from_file(file, true).unwrap();
    let mut driver = Driver::new(Scsi::new(ScsiCd::new(Arc::new(disk))));
    driver.start(VERSION_1);
    let configuration = good(&mut driver, &[0x46, 0, 0, 0, 0, 0, 0, 0, 255, 0], 255);
    assert_eq!(configuration[6..8], [0, 0x10]);
    assert_eq!(good(&mut driver, &[0x25], 8), [0, 0x1f, 0xff, 0xff, 0, 0, 8, 0]);
}

#[test]
fn blocks_are_read_and_the_last_one_is_filled_up() {
    let (mut driver, _) = driver();
    assert_eq!(good(&mut driver, &[0x25], 8), [0, 0, 0, 2, 0, 0, 8, 0]);
    let long = good(&mut driver, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32], 32);
    assert_eq!(long[..12], [0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 8, 0]);
    let all: Vec<u8> = (1..=10u8).flat_map(|byte| [byte; 512]).chain([0; 1024]).collect();
    for read in [
        vec![0x08, 0, 0, 0, 3, 0],
        vec![0x28, 0, 0, 0, 0, 0, 0, 0, 3, 0],
        vec![0xa8, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0],
        vec![0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0],
    ] {
        assert!(good(&mut driver, &read, 6144) == all, "{read:x?}");
    }
    assert!(good(&mut driver, &[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 2048) == all[2048..4096]);
    assert_eq!(command(&mut driver, &[0x28, 0, 0, 0, 0, 1, 0, 0, 1, 0], 4096).residual, 2048);
    assert_eq!(command(&mut driver, &[0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0], 2048).response, 1);
    assert!(good(&mut driver, &[0x28, 0, 0, 0, 0, 3, 0, 0, 0, 0], 64).is_empty());
    for beyond in
        [[0, 0, 0, 3, 0, 0, 1], [0, 0, 0, 2, 0, 0, 2], [0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff]]
    {
        let cdb: Vec<u8> = [0x28, 0].into_iter().chain(beyond).collect();
        assert_eq!(refused(&mut driver, &cdb), [5, 0x21, 0]);
    }
    let far = [0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0];
    assert_eq!(refused(&mut driver, &far), [5, 0x21, 0]);
}

#[test]
fn the_guest_opens_the_tray_and_the_host_takes_the_medium() {
    let (mut driver, drive) = driver();
    let test = [0; 6];
    let events = [0x4a, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
    good(&mut driver, &test, 0);
    assert_eq!(good(&mut driver, &events, 8), [0, 6, 4, 0x10, 0, 2, 0, 0]);
    // Lock, unlock, eject.
    good(&mut driver, &[0x1e, 0, 0, 0, 1, 0], 0);
    good(&mut driver, &[0x1e, 0, 0, 0, 0, 0], 0);
    good(&mut driver, &[0x1b, 0, 0, 0, 2, 0], 0);
    assert!(!drive.is_loaded());
    assert_eq!(refused(&mut driver, &test), [2, 0x3a, 2]);
    assert_eq!(refused(&mut driver, &[0x25]), [2, 0x3a, 2]);
    assert_eq!(good(&mut driver, &events, 8)[4..6], [3, 1]);
    assert_eq!(good(&mut driver, &events, 8)[4..6], [0, 1]);
    // Closed again: the guest is told once.
    good(&mut driver, &[0x1b, 0, 0, 0, 3, 0], 0);
    assert_eq!(refused(&mut driver, &test), [6, 0x28, 0]);
    good(&mut driver, &test, 0);
    drive.eject();
    assert_eq!(refused(&mut driver, &test), [2, 0x3a, 2]);
    assert_eq!(refused(&mut driver, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0]), [2, 0x3a, 2]);
    good(&mut driver, &[0x1b, 0, 0, 0, 3, 0], 0);
    assert_eq!(refused(&mut driver, &test), [2, 0x3a, 1]);
    // A reset of the machine brings no medium back.
    driver.board.pci().reset();
    assert!(!drive.is_loaded());
    assert_eq!(refused_events(&mut Driver::new(Scsi::new(Arc::clone(&drive)))), [5, 0x24, 0]);
}

fn refused_events(driver: &mut Driver) -> [u8; 3] {
    driver.start(VERSION_1);
    refused(driver, &[0x4a, 0, 0, 0, 0x10, 0, 0, 0, 8, 0])
}

#[test]
fn task_management_finds_everything_finished() {
    let (mut driver, _) = driver();
    let abort = [0u8; 24];
    assert_eq!(driver.request(0, &[Part::Out(&abort), Part::In(1)]), (1, vec![0]));
    let query = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(driver.request(0, &[Part::Out(&query), Part::In(5)]), (5, vec![0; 5]));
    assert_eq!(driver.request(0, &[Part::Out(&[0]), Part::In(1)]).0, 0);
    // Event buffers are kept.
    driver.offer(1, &[Part::In(16)], false);
    driver.notify(1);
    assert_eq!(driver.request(0, &[Part::Out(&abort), Part::In(1)]), (1, vec![0]));
    assert_eq!(driver.used_index(1), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_command_is_too_odd(
        commands in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..32), 0usize..24, 0u32..300, any::<bool>()), 1..40,
        ),
    ) {
        let opcodes = [
            0, 3, 8, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x2f, 0x35, 0x43, 0x46, 0x4a, 0x51, 0x5a,
            0x88, 0x9e, 0xa0, 0xa8, 0xbd,
        ];
        let (mut driver, _) = driver();
        for (mut cdb, opcode, room, is_whole) in commands {
            if let (Some(first), Some(opcode)) = (cdb.first_mut(), opcodes.get(opcode)) {
                *first = *opcode;
            }
            if is_whole {
                command(&mut driver, &cdb, room);
            } else {
                driver.request(REQUESTS, &[Part::Out(&cdb), Part::In(room.max(1))]);
            }
        }
    }
}
