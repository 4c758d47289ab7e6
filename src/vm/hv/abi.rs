// This Source Code Form is subject to the terms of the Mozilla Public
// License, v. 2.0. If a copy of the MPL was not distributed with this
// file, You can obtain one at https://mozilla.org/MPL/2.0/.

//! How the raw layers of [`super::bhyve`] and [`super::viona`] are written down: each constant and
//! each structure once, in a macro that also keeps a list of them. The list is what
//! `cargo run --example abi` prints, one fact a line, for a comparison with an illumos' own headers.

use std::borrow::Cow;

/// A structure as the compiler lays it out.
#[derive(Debug)]
pub(super) struct Structure {
    pub(super) name: &'static str,
    pub(super) size: usize,
    pub(super) align: usize,
    /// Fields and their offsets; those of a union's members as a path.
    pub(super) fields: &'static [(&'static str, usize)],
}

/// A value of an enumeration: the enumeration's name, the value's, and the value.
pub(super) type Named = (&'static str, &'static str, u64);

/// What one raw layer holds.
pub(super) struct Layer {
    pub(super) structures: &'static [Structure],
    pub(super) constants: &'static [(&'static str, u64)],
    pub(super) enumerations: &'static [Named],
}

/// Data that a kernel fills and reads: any bit pattern is a value, all zeros too.
///
/// # Safety
/// The type must be made of integers, raw pointers, and arrays, structures and unions of them.
#[allow(unsafe_code)]
pub(super) unsafe trait Plain: Copy {
    /// All bytes zero, padding included.
    fn zeroed() -> Self {
        // SAFETY: the trait's contract says that zero bytes are a value.
        unsafe { std::mem::zeroed() }
    }
}

// SAFETY: integers.
#[allow(unsafe_code)]
unsafe impl Plain for u64 {}
// SAFETY: integers.
#[allow(unsafe_code)]
unsafe impl Plain for i32 {}
// SAFETY: an array of integers.
#[allow(unsafe_code)]
unsafe impl Plain for [u8; 256] {}

/// `#define`s of a header.
macro_rules! constants {
    ($list:ident; $($name:ident = $value:expr,)*) => {
        $(pub(crate) const $name: u32 = $value;)*
        pub(in crate::vm::hv) const $list: &[(&str, u64)] =
            &[$((stringify!($name), $name as u64),)*];
    };
}

/// `enum`s of a header.
macro_rules! enumerations {
    ($list:ident; $($kind:ident { $($name:ident = $value:expr,)* })*) => {
        $($(pub(crate) const $name: u32 = $value;)*)*
        pub(in crate::vm::hv) const $list: &[crate::vm::hv::abi::Named] =
            &[$($((stringify!($kind), stringify!($name), $name as u64),)*)*];
    };
}

/// `struct`s of a header. Behind `inside` stand paths to members of a union that have no name of
/// their own there.
macro_rules! structures {
    ($list:ident; $(
        struct $name:ident { $($field:ident: $type:ty,)* }
        $(inside { $($($path:ident).+,)* })?
    )*) => {
        $(
            #[repr(C)]
            #[derive(Clone, Copy)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type,)*
            }

            // SAFETY: the definitions that this macro is given hold integers, raw pointers, and
            // arrays, structures and unions of them.
            #[allow(unsafe_code)]
            unsafe impl crate::vm::hv::abi::Plain for $name {}
        )*
        pub(in crate::vm::hv) const $list: &[crate::vm::hv::abi::Structure] = &[$(
            crate::vm::hv::abi::Structure {
                name: stringify!($name),
                size: size_of::<$name>(),
                align: align_of::<$name>(),
                fields: &[
                    $((stringify!($field), std::mem::offset_of!($name, $field)),)*
                    $($((stringify!($($path).+), std::mem::offset_of!($name, $($path).+)),)*)?
                ],
            },
        )*];
    };
}

pub(super) use {constants, enumerations, structures};

/// The name of a call, or its number when it has none here.
pub(super) fn name(request: u32) -> Cow<'static, str> {
    /// Requests begin with letters; smaller numbers are flags.
    const FIRST: u64 = 0x56_0000;
    let layers = [super::bhyve::abi::LAYER, super::viona::abi::LAYER];
    let mut all = layers.iter().flat_map(|layer| layer.constants);
    match all.find(|(_, value)| *value >= FIRST && *value == u64::from(request)) {
        Some((name, _)) => Cow::Borrowed(name),
        None => Cow::Owned(format!("{request:#x}")),
    }
}

/// Everything that the raw layers hold, one fact a line: `S|struct|size|align`,
/// `F|struct|field|offset`, `C|constant|value`, `E|enum|name|value`; numbers are decimal.
pub fn lines() -> Vec<String> {
    [super::bhyve::abi::LAYER, super::viona::abi::LAYER].iter().flat_map(of_layer).collect()
}

fn of_layer(layer: &Layer) -> Vec<String> {
    let mut lines = Vec::new();
    for structure in layer.structures {
        let Structure { name, size, align, fields } = structure;
        lines.push(format!("S|{name}|{size}|{align}"));
        let path = |field: &str| field.replace(' ', "");
        lines.extend(fields.iter().map(|(field, at)| format!("F|{name}|{}|{at}", path(field))));
    }
    lines.extend(layer.constants.iter().map(|(name, value)| format!("C|{name}|{value}")));
    let enumerations = layer.enumerations.iter();
    lines.extend(enumerations.map(|(kind, name, value)| format!("E|{kind}|{name}|{value}")));
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What illumos' headers hold, measured with a C compiler.
    const EXPECTED: &str = include_str!("abi_expected.txt");

    #[test]
    fn calls_have_their_names() {
        assert_eq!(name(0x76_7001), "VM_RUN");
        assert_eq!(name(0x56_4303), "VNA_IOC_VERSION");
        assert_eq!(name(1), "0x1");
    }

    #[test]
    fn the_raw_layers_are_what_illumos_headers_say() {
        let ours = lines();
        let ours: BTreeSet<&str> = ours.iter().map(String::as_str).collect();
        let expected: BTreeSet<&str> = EXPECTED.lines().collect();
        let wrong: Vec<_> = ours.symmetric_difference(&expected).collect();
        assert!(wrong.is_empty(), "ours and the headers differ: {wrong:#?}");
        assert_eq!(ours.len(), lines().len(), "a fact is listed twice");
    }
}
