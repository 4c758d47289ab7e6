// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! The forms that a disk has outside a machine: how to know them, read them and write them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_util::sync::CancellationToken;

use super::compress::{Meter, Options, pump};
use super::forward::{Interruptible, RawStream};
use super::gunzip::GunzipDisk;
use super::partial::{Partial, STANDARD, cannot_write};
use super::pipeline::interrupted;
use super::qcow2::{self, Qcow2Disk, Qcow2Options};
use super::raw::write_sparse;
use super::source::{CHUNK, Chunk, RawDisk, Source};
use super::stream::{StreamOptions, VolumeStream, read_stream};
use crate::ui::{Events, Failure, Outcome};

/// What a disk is stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// The bytes of the disk.
    Raw,
    /// The same, compressed by gzip.
    RawGz,
    /// QEMU's format.
    Qcow2,
    /// The ZFS send stream of a volume.
    Zfs,
    /// The same, compressed by gzip: a SmartOS image.
    ZfsGz,
}

impl ImageFormat {
    /// All formats, in the order in which help names them.
    pub const ALL: [Self; 5] = [Self::Raw, Self::RawGz, Self::Qcow2, Self::Zfs, Self::ZfsGz];

    /// The format's name, which is also the extension of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawGz => "raw.gz",
            Self::Qcow2 => "qcow2",
            Self::Zfs => "zfs",
            Self::ZfsGz => "zfs.gz",
        }
    }

    /// The format that a file's extension tells; `.img` is a raw disk.
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let has = |extension: &str| {
            name.strip_suffix(extension).is_some_and(|stem| stem.len() > 1 && stem.ends_with('.'))
        };
        match () {
            () if has("img") => Some(Self::Raw),
            () if has("img.gz") => Some(Self::RawGz),
            () => Self::ALL.into_iter().find(|format| has(format.name())),
        }
    }

    /// The format that the first bytes tell, for those that have a mark.
    fn of_content(start: &[u8]) -> Option<Self> {
        match start {
            [0x1f, 0x8b, ..] => Some(Self::RawGz),
            _ if start.starts_with(&qcow2::MAGIC) => Some(Self::Qcow2),
            _ => None,
        }
    }

    /// It is compressed in any case.
    fn is_gzip(self) -> bool {
        matches!(self, Self::RawGz | Self::ZfsGz)
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ImageFormat {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.name() == word).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|format| format.name()).collect();
            format!("expected one of {}", names.join(", "))
        })
    }
}

/// Where a disk comes from or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A file, or a device to read.
    File(PathBuf),
    /// Standard input or output, written `-`.
    Standard,
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        if path == Path::new(STANDARD) { Self::Standard } else { Self::File(path.to_owned()) }
    }
}

/// How a disk is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkOptions {
    /// Compression level, 1 to 9.
    pub level: u32,
    /// Threads that compress; 0 means one per processor.
    pub threads: usize,
    /// Compress the clusters of a qcow2 image.
    pub compressed: bool,
    /// Replace a file that exists, once the new one is whole.
    pub replace: bool,
    /// For ZFS send streams.
    pub stream: StreamOptions,
}

impl Default for SinkOptions {
    fn default() -> Self {
        let stream = StreamOptions::default();
        Self { level: 6, threads: 0, compressed: false, replace: false, stream }
    }
}

/// Refuses a file whose first bytes are the mark of another format than its name tells.
///
/// # Errors
/// When they are, or the file cannot be read.
pub fn check_content(path: &Path, format: ImageFormat) -> Outcome<()> {
    let mut start = Vec::new();
    open(path)?.take(4).read_to_end(&mut start).map_err(|error| cannot_open(path, error))?;
    let found = match ImageFormat::of_content(&start) {
        Some(ImageFormat::RawGz) if format.is_gzip() => return Ok(()),
        Some(found) if found != format => found,
        _ => return Ok(()),
    };
    let shown = path.display();
    let what = if found == ImageFormat::Qcow2 { "a qcow2 image" } else { "a gzip file" };
    Err(Failure::input(format!("{shown} has the name of a {format} file, but it is {what}"))
        .fact("file", shown)
        .hint(format!("say what it is: `--from {found}`, or `--from {format}` if that is right")))
}

/// Opens a disk of any format. `size` is what a raw disk in a pipe must have, in bytes.
///
/// # Errors
/// When it cannot be read, is damaged from the start, or has a format that cannot come through a
/// pipe.
pub fn open_source(
    format: ImageFormat,
    from: &Place,
    size: Option<u64>,
    cancel: &CancellationToken,
) -> Outcome<Box<dyn Source>> {
    let (input, name, known): (Box<dyn Read + Send>, _, _) = match (format, from) {
        (ImageFormat::Raw, Place::File(path)) => {
            let disk = RawDisk::open(path)?;
            disk.check_partitions()?;
            return Ok(Box::new(disk));
        }
        (ImageFormat::Qcow2, Place::File(path)) => return Ok(Box::new(Qcow2Disk::open(path)?)),
        (_, Place::File(path)) => (Box::new(open(path)?), path.display().to_string(), None),
        (_, Place::Standard) => {
            let (input, known) = standard_input(cancel)?;
            (Box::new(input), "standard input".to_owned(), known)
        }
    };
    match format {
        ImageFormat::Raw => Ok(Box::new(RawStream::new(input, &name, size.or(known)))),
        ImageFormat::RawGz => Ok(Box::new(GunzipDisk::new(input, &name))),
        ImageFormat::Zfs | ImageFormat::ZfsGz => Ok(Box::new(read_stream(input, &name)?)),
        ImageFormat::Qcow2 => Err(needs_file("read")),
    }
}

/// Writes a disk in any format; returns the bytes written. A file has its name only when it is
/// whole and durable, and whatever fails, nothing stays behind. Blocks.
///
/// # Errors
/// When the output exists and is not to be replaced, the source cannot be read, the output cannot
/// be written (a pipe that nobody reads among them), the format needs a file, or `cancel` is
/// cancelled.
pub fn write_sink(
    format: ImageFormat,
    source: &mut dyn Source,
    to: &Place,
    options: &SinkOptions,
    events: &Events,
    cancel: &CancellationToken,
) -> Outcome<u64> {
    let gzip = Options { level: options.level, threads: options.threads };
    match (format, to) {
        (ImageFormat::Raw, Place::File(path)) => publish(path, options.replace, |file| {
            let meter = meter(events, source, path);
            write_sparse(source, file, path, meter, cancel)
        }),
        (ImageFormat::Raw, Place::Standard) => {
            let path = Path::new(STANDARD);
            let meter = meter(events, source, path);
            write_forward(source, standard_output()?, path, meter, cancel)
        }
        (ImageFormat::RawGz, Place::File(path)) => publish(path, options.replace, |file| {
            Ok(pump(source, file, path, gzip, events, cancel)?.bytes)
        }),
        (ImageFormat::RawGz, Place::Standard) => {
            let path = Path::new(STANDARD);
            Ok(pump(source, standard_output()?, path, gzip, events, cancel)?.bytes)
        }
        (ImageFormat::Qcow2, Place::File(path)) => {
            let (compressed, level) = (options.compressed, options.level);
            let image = Qcow2Options { compressed, level, threads: options.threads };
            publish(path, options.replace, |file| {
                Ok(qcow2::write_into(source, file, path, image, events, cancel)?.bytes)
            })
        }
        (ImageFormat::Qcow2, Place::Standard) => Err(needs_file("written")),
        (ImageFormat::Zfs | ImageFormat::ZfsGz, _) => {
            let plain =
                if format == ImageFormat::Zfs { ImageFormat::Raw } else { ImageFormat::RawGz };
            let mut stream = VolumeStream::new(source, &options.stream)?;
            write_sink(plain, &mut stream, to, options, events, cancel)
        }
    }
}

/// A file by way of [`Partial`].
fn publish(
    path: &Path,
    replace: bool,
    write: impl FnOnce(&mut File) -> Outcome<u64>,
) -> Outcome<u64> {
    let mut partial = if replace { Partial::replace(path)? } else { Partial::create(path)? };
    let bytes = write(partial.file())?;
    partial.publish(bytes)?;
    Ok(bytes)
}

/// Writes a raw disk to what can only be written forward.
fn write_forward(
    source: &mut dyn Source,
    mut sink: impl Write,
    to: &Path,
    mut meter: Meter<'_>,
    cancel: &CancellationToken,
) -> Outcome<u64> {
    let zeros = vec![0; CHUNK];
    let mut buffer = Vec::new();
    let mut at = 0;
    while let Some(chunk) = source.next(std::mem::take(&mut buffer))? {
        let mut rest = match chunk {
            Chunk::Zeros(count) => count,
            Chunk::Data(data) => {
                sink.write_all(&data).map_err(|error| cannot_write(to, error, at))?;
                at += data.len() as u64;
                buffer = data;
                0
            }
        };
        while rest > 0 && !cancel.is_cancelled() {
            let part = usize::try_from(rest).map_or(CHUNK, |rest| rest.min(CHUNK));
            sink.write_all(&zeros[..part]).map_err(|error| cannot_write(to, error, at))?;
            at += part as u64;
            rest -= part as u64;
            meter.at(source.done(at));
        }
        if cancel.is_cancelled() {
            return Err(interrupted(to));
        }
        meter.at(source.done(at));
    }
    sink.flush().map_err(|error| cannot_write(to, error, at))?;
    meter.end(source.done(at));
    Ok(at)
}

fn meter<'a>(events: &'a Events, source: &dyn Source, to: &Path) -> Meter<'a> {
    let what = match to.to_str() {
        Some(STANDARD) => "writing to standard output".to_owned(),
        _ => format!("writing {}", to.display()),
    };
    Meter::new(events, what, source.span())
}

fn open(path: &Path) -> Outcome<File> {
    File::open(path).map_err(|error| cannot_open(path, error))
}

fn cannot_open(path: &Path, error: io::Error) -> Failure {
    Failure::input(format!("cannot read {}", path.display()))
        .because(error)
        .fact("file", path.display())
}

/// Standard input, and how many bytes it has when it is a file.
fn standard_input(cancel: &CancellationToken) -> Outcome<(Interruptible, Option<u64>)> {
    let failed = |error: io::Error| Failure::build("cannot read standard input").because(error);
    let file = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let facts = file.metadata().map_err(failed)?;
    let size = if facts.is_file() {
        let at = io::Seek::stream_position(&mut &file).map_err(failed)?;
        Some(facts.len().saturating_sub(at))
    } else {
        None
    };
    Ok((Interruptible::new(file, cancel), size))
}

fn standard_output() -> Outcome<File> {
    let out = io::stdout().as_fd().try_clone_to_owned();
    out.map(File::from).map_err(|error| cannot_write(Path::new(STANDARD), error, 0))
}

fn needs_file(done: &str) -> Failure {
    Failure::input(format!("a qcow2 image cannot be {done} through a pipe: it is not in order"))
        .hint("name a file")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_formats() {
        let of = |name: &str| ImageFormat::of_path(Path::new(name));
        assert_eq!(of("/x/disk.raw"), Some(ImageFormat::Raw));
        assert_eq!(of("disk.IMG"), Some(ImageFormat::Raw));
        assert_eq!(of("d.1.raw.gz"), Some(ImageFormat::RawGz));
        assert_eq!(of("d.img.gz"), Some(ImageFormat::RawGz));
        assert_eq!(of("debian-13-1.x86_64.zfs.gz"), Some(ImageFormat::ZfsGz));
        assert_eq!(of("d.zfs"), Some(ImageFormat::Zfs));
        assert_eq!(of("d.qcow2"), Some(ImageFormat::Qcow2));
        for name in ["raw", ".raw", "d", "d.gz", "d.qcow", "d.qcow2.gz", "dimg", "/d.raw/x", ""] {
            assert_eq!(of(name), None, "{name}");
        }
        for format in ImageFormat::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(of(&format!("x.{format}")), Some(format));
        }
        assert_eq!(
            "vmdk".parse::<ImageFormat>(),
            Err("expected one of raw, raw.gz, qcow2, zfs, zfs.gz".into())
        );
    }
}
