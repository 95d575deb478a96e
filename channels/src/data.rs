//! What can be sent: how values become the payload of a frame, and come back.
//!
//! There are two serialisers. [`Moving`] takes note of the ends that a value holds, which then move with it;
//! [`Plain`] refuses values that hold ends at compile time, because it only ever sees a borrow. Both write straight
//! into the ring. When the room does not suffice they go on counting, so that one attempt tells how much is needed.
#![expect(unsafe_code, reason = "values are serialised into the memory of a ring")]

use std::{
    alloc::{Layout, handle_alloc_error},
    mem::MaybeUninit,
    ptr::NonNull,
    sync::Arc,
};

use rkyv::{
    Archive,
    api::high::{HighDeserializer, HighValidator},
    bytecheck::CheckBytes,
    rancor::{self, Strategy},
    ser::{Allocator, Positional, Writer},
    util::AlignedVec,
};

use crate::end::EndCell;

/// Values that can be sent, and be arguments and results of processes.
///
/// It is implemented for whatever has rkyv's three derives, which `#[archean::data]` adds.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be sent to another process",
    label = "not a type that can be sent",
    note = "put `#[archean::data]` on your own types; wrap a type that has only serde's derives in `archean::Serde`"
)]
pub trait Data:
    Sized
    + Archive<
        Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
                      + rkyv::Deserialize<Self, HighDeserializer<rancor::Error>>,
    > + rkyv::Serialize<Strategy<Moving, rancor::Error>>
    + 'static
{
}

impl<T> Data for T
where
    T: Archive + rkyv::Serialize<Strategy<Moving, rancor::Error>> + 'static,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, rancor::Error>>
        + rkyv::Deserialize<T, HighDeserializer<rancor::Error>>,
{
}

/// Values that hold no ends, and so can be sent from a borrow.
pub trait PlainData: Data + rkyv::Serialize<Strategy<Plain, rancor::Error>> {}

impl<T: Data + rkyv::Serialize<Strategy<Plain, rancor::Error>>> PlainData for T {}

/// Serialisers that can move ends. A value that holds one can only be sent by value.
#[diagnostic::on_unimplemented(
    message = "this value holds the end of a channel, which must be moved",
    label = "use `send` (by value) instead of `send_ref`"
)]
pub trait Ends {
    /// Takes note of an end.
    #[doc(hidden)]
    fn note(&mut self, end: &Arc<EndCell>);
}

impl<T: Ends + ?Sized, E> Ends for Strategy<T, E> {
    fn note(&mut self, end: &Arc<EndCell>) {
        (**self).note(end);
    }
}

/// Bytes for rkyv's intermediate results; what does not fit comes from the heap.
const SCRATCH_BYTES: usize = 512;

/// The serialiser of values without ends.
#[derive(Debug)]
pub struct Plain {
    start: *mut u8,
    room: usize,
    position: usize,
    scratch: MaybeUninit<[u128; SCRATCH_BYTES / 16]>,
    scratch_used: usize,
}

/// The serialiser of values that may hold ends.
#[derive(Debug)]
pub struct Moving {
    plain: Plain,
    ends: Vec<Arc<EndCell>>,
}

impl Plain {
    /// # Safety
    /// `start` is valid for writes of `room` bytes until the serialiser is dropped, and aligned to sixteen.
    pub(crate) unsafe fn new(start: *mut u8, room: usize) -> Self {
        Plain { start, room, position: 0, scratch: MaybeUninit::uninit(), scratch_used: 0 }
    }

    /// How many bytes the value takes, whether they had room or not.
    pub(crate) fn finish(self) -> usize {
        self.position
    }
}

impl Moving {
    /// # Safety
    /// As for [`Plain::new`].
    pub(crate) unsafe fn new(start: *mut u8, room: usize) -> Self {
        // SAFETY: the caller's promise.
        Moving { plain: unsafe { Plain::new(start, room) }, ends: Vec::new() }
    }

    /// How many bytes the value takes, whether they had room or not, and the ends that it holds.
    pub(crate) fn finish(self) -> (usize, Vec<Arc<EndCell>>) {
        (self.plain.position, self.ends)
    }
}

impl Ends for Moving {
    fn note(&mut self, end: &Arc<EndCell>) {
        self.ends.push(end.clone());
    }
}

impl Positional for Plain {
    #[inline]
    fn pos(&self) -> usize {
        self.position
    }
}

impl<E> Writer<E> for Plain {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        let end = self.position.saturating_add(bytes.len());
        if end <= self.room {
            // SAFETY: `start` is valid for writes of `room` bytes (the contract of `new`), and this ends within.
            unsafe { self.start.add(self.position).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
        self.position = end;
        Ok(())
    }
}

// SAFETY: what `push_alloc` gives is valid for the layout: from the scratch space, aligned and not given twice
// while `scratch_used` covers it, or from the heap. The scratch space lies in the serialiser, which rkyv borrows
// and does not move between a push and its pop.
unsafe impl<E> Allocator<E> for Plain {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, E> {
        let start = self.scratch_used.next_multiple_of(layout.align());
        if layout.align() <= 16 && start < SCRATCH_BYTES && start + layout.size() <= SCRATCH_BYTES {
            self.scratch_used = start + layout.size();
            // SAFETY: `start` lies within the scratch space.
            let pointer = unsafe { self.scratch.as_mut_ptr().cast::<u8>().add(start) };
            let pointer = NonNull::new(pointer).expect("a field's address is not null");
            return Ok(NonNull::slice_from_raw_parts(pointer, layout.size()));
        }
        // SAFETY: the alignment is that of a layout, and so is the size, or it is one.
        let heap = unsafe { Layout::from_size_align_unchecked(layout.size().max(1), layout.align()) };
        // SAFETY: the size is not zero.
        let pointer =
            NonNull::new(unsafe { std::alloc::alloc(heap) }).unwrap_or_else(|| handle_alloc_error(heap));
        Ok(NonNull::slice_from_raw_parts(pointer, layout.size()))
    }

    unsafe fn pop_alloc(&mut self, pointer: NonNull<u8>, layout: Layout) -> Result<(), E> {
        let scratch = self.scratch.as_ptr().addr();
        match pointer.addr().get().checked_sub(scratch) {
            Some(start) if start < SCRATCH_BYTES => self.scratch_used = start,
            // SAFETY: it was allocated above with this layout, by the caller's promise.
            _ => unsafe {
                let heap = Layout::from_size_align_unchecked(layout.size().max(1), layout.align());
                std::alloc::dealloc(pointer.as_ptr(), heap);
            },
        }
        Ok(())
    }
}

impl Positional for Moving {
    #[inline]
    fn pos(&self) -> usize {
        self.plain.position
    }
}

impl<E> Writer<E> for Moving {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.plain.write(bytes)
    }
}

// SAFETY: all that `Plain` promises.
unsafe impl<E> Allocator<E> for Moving {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, E> {
        // SAFETY: the caller's promise.
        unsafe { self.plain.push_alloc(layout) }
    }

    unsafe fn pop_alloc(&mut self, pointer: NonNull<u8>, layout: Layout) -> Result<(), E> {
        // SAFETY: the caller's promise.
        unsafe { self.plain.pop_alloc(pointer, layout) }
    }
}

/// Serialises into `room` bytes at `start`; see [`Moving::finish`].
///
/// # Errors
/// An error of the value's own implementation of `Serialize`.
///
/// # Safety
/// As for [`Plain::new`].
pub(crate) unsafe fn write_moving<T: Data>(
    value: &T,
    start: *mut u8,
    room: usize,
) -> Result<(usize, Vec<Arc<EndCell>>), rancor::Error> {
    // SAFETY: the caller's promise.
    let mut serialiser = unsafe { Moving::new(start, room) };
    rkyv::api::serialize_using::<_, rancor::Error>(value, &mut serialiser)?;
    Ok(serialiser.finish())
}

/// Serialises into `room` bytes at `start`; see [`Plain::finish`].
///
/// # Errors
/// An error of the value's own implementation of `Serialize`.
///
/// # Safety
/// As for [`Plain::new`].
pub(crate) unsafe fn write_plain<T: PlainData>(
    value: &T,
    start: *mut u8,
    room: usize,
) -> Result<usize, rancor::Error> {
    // SAFETY: the caller's promise.
    let mut serialiser = unsafe { Plain::new(start, room) };
    rkyv::api::serialize_using::<_, rancor::Error>(value, &mut serialiser)?;
    Ok(serialiser.finish())
}

/// A value as bytes that stand by themselves, and the ends that it holds: for arguments and results.
#[derive(Debug)]
pub struct Packed {
    /// The archive.
    pub bytes: Vec<u8>,
    /// The ends, still where they are.
    pub ends: Vec<Arc<EndCell>>,
}

/// Packs a value. Nothing has moved yet when this returns.
///
/// # Errors
/// What stands in the way, in words: an error of the value's own implementation of `Serialize`.
pub fn pack<T: Data>(value: &T) -> Result<Packed, String> {
    let mut bytes = AlignedVec::<16>::new();
    let ends = pack_into(value, &mut bytes)?;
    Ok(Packed { bytes: bytes.into_vec(), ends })
}

/// As [`pack`], into a vector that may have been used before.
///
/// # Errors
/// As for [`pack`]; the vector is empty then.
pub(crate) fn pack_into<T: Data>(value: &T, bytes: &mut AlignedVec<16>) -> Result<Vec<Arc<EndCell>>, String> {
    bytes.clear();
    loop {
        let room = bytes.capacity();
        // SAFETY: the vector has that capacity, aligned to sixteen.
        let written = unsafe { write_moving(value, bytes.as_mut_ptr(), room) };
        let (needed, ends) = written.map_err(|error| error.to_string())?;
        if needed <= room {
            // SAFETY: all of `needed` bytes were written just now.
            unsafe { bytes.set_len(needed) };
            return Ok(ends);
        }
        bytes.reserve_exact(needed);
    }
}

/// Checks that `bytes` hold an archived `T`.
///
/// # Errors
/// What is wrong, in words.
#[inline]
pub(crate) fn check<T: Data>(bytes: &[u8]) -> Result<&T::Archived, String> {
    const { assert!(align_of::<T::Archived>() <= 16, "types aligned to more than 16 bytes can't be sent") };
    rkyv::access::<T::Archived, rancor::Error>(bytes).map_err(|error| error.to_string())
}

/// As [`check`], without the reason.
#[inline(always)]
pub(crate) fn check_quick<T: Data>(bytes: &[u8]) -> Option<&T::Archived> {
    rkyv::access::<T::Archived, rancor::Error>(bytes).ok()
}

/// Takes a packed value apart again; ends in it are to be claimed (see [`claiming`](crate::claiming)).
///
/// # Errors
/// What is wrong, in words.
pub fn unpack<T: Data>(bytes: &[u8]) -> Result<T, String> {
    let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    rkyv::deserialize::<T, rancor::Error>(check::<T>(&aligned)?).map_err(|error| error.to_string())
}

/// A hash of a type's name and shape, by which two ends see that they are of one mind.
pub(crate) fn type_hash<T: Archive>() -> u64 {
    let shape = [size_of::<T::Archived>() as u8, align_of::<T::Archived>() as u8];
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    std::any::type_name::<T>().as_bytes().iter().chain(&shape).fold(0xcbf2_9ce4_8422_2325, fnv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, PartialEq, Debug, Clone)]
    struct Rich {
        names: Vec<String>,
        number: u128,
        pairs: Option<Box<(u8, Vec<u16>)>>,
    }

    #[test]
    fn the_hello_of_links_says_how_archives_are_laid_out() {
        let format = protocol::hello::FORMAT;
        assert_eq!(size_of::<rkyv::Archived<usize>>() * 8, usize::from(format.pointer_bits));
        let bytes = rkyv::to_bytes::<rancor::Error>(&1u16).unwrap();
        assert_eq!(bytes[..], if format.order == 1 { [1, 0] } else { [0, 1] });
    }

    proptest::proptest! {
        #[test]
        fn what_is_packed_comes_back(names: Vec<String>, number: u128, pairs: Option<(u8, Vec<u16>)>) {
            let rich = Rich { names, number, pairs: pairs.map(Box::new) };
            let packed = pack(&rich).unwrap();
            proptest::prop_assert!(packed.ends.is_empty());
            proptest::prop_assert_eq!(unpack::<Rich>(&packed.bytes), Ok(rich));
        }

        #[test]
        fn garbage_is_told_from_a_value(bytes: Vec<u8>) {
            let _ = unpack::<Rich>(&bytes);
        }
    }

    #[test]
    fn too_little_room_is_measured_and_left_alone() {
        let value = vec![7u64; 100];
        let mut space = [0u128; 8];
        // SAFETY: sixteen bytes less than the array has.
        let needed = unsafe { write_plain(&value, space.as_mut_ptr().cast(), 112) }.unwrap();
        assert_eq!(needed, 808);
        assert_eq!(space[7], 0);
    }

    #[test]
    fn scratch_overflow_goes_to_the_heap() {
        let names: Vec<String> = (0..1000).map(|n| format!("a rather long name {n}")).collect();
        assert_eq!(unpack::<Vec<String>>(&pack(&names).unwrap().bytes), Ok(names));
    }

    #[test]
    fn types_have_different_hashes() {
        assert_ne!(type_hash::<u32>(), type_hash::<String>());
    }
}
