//! Entries: the functions of a program that can be spawned, and how a process finds them.
#![expect(unsafe_code, reason = "a function is found by its place in the image")]

use std::{
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
};

use channels::{Data, claiming, data, hub};
use protocol::{
    control::{EndingWord, Finished},
    ending::Ending,
    ids::EndId,
    limits::{ARGUMENT_BYTES_MAX, FRAME_ENDS_MAX},
};

/// A function that can be spawned with an argument of type `A`.
///
/// It is implemented for functions, async functions and closures that capture nothing, with zero to six
/// parameters; several parameters travel as a tuple. `M` tells the cases apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be spawned with arguments of type `{A}`",
    label = "not an entry for these arguments",
    note = "an entry is a function, an async function or a closure that captures nothing, with zero to six \
            parameters, which are given as a tuple; arguments and result must be data: see `#[archean::data]`"
)]
pub trait Entry<A, M>: Copy + 'static {
    /// What it returns.
    type Out: Data;

    /// Calls it; an async function is run to its end.
    fn call(self, argument: A) -> Self::Out;
}

/// Marks plain functions.
#[derive(Debug)]
pub struct Sync<R>(PhantomData<R>);

/// Marks async functions.
#[derive(Debug)]
pub struct Async<F>(PhantomData<F>);

/// Marks a number of parameters.
#[derive(Debug)]
pub struct Arity<const N: usize>;

macro_rules! entries {
    ($count:literal, $argument:pat => $type:ty, $($name:ident: $parameter:ident),*) => {
        impl<F, R: Data, $($parameter,)*> Entry<$type, (Arity<$count>, Sync<R>)> for F
        where
            F: Fn($($parameter),*) -> R + Copy + 'static,
        {
            type Out = R;

            fn call(self, $argument: $type) -> R {
                self($($name),*)
            }
        }

        impl<F, Fut, $($parameter,)*> Entry<$type, (Arity<$count>, Async<Fut>)> for F
        where
            F: Fn($($parameter),*) -> Fut + Copy + 'static,
            Fut: Future,
            Fut::Output: Data,
        {
            type Out = Fut::Output;

            fn call(self, $argument: $type) -> Fut::Output {
                hub::block_on(self($($name),*))
            }
        }
    };
}

entries!(0, () => (),);
entries!(1, a => A, a: A);
entries!(2, (a, b) => (A, B), a: A, b: B);
entries!(3, (a, b, c) => (A, B, C), a: A, b: B, c: C);
entries!(4, (a, b, c, d) => (A, B, C, D), a: A, b: B, c: C, d: D);
entries!(5, (a, b, c, d, e) => (A, B, C, D, E), a: A, b: B, c: C, d: D, e: E);
entries!(6, (a, b, c, d, e, f) => (A, B, C, D, E, G), a: A, b: B, c: C, d: D, e: E, f: G);

/// Runs an entry with packed arguments, and packs what it returns.
type Shim = fn(&[u8], Vec<EndId>) -> Finished;

unsafe extern "C" {
    /// The first byte of the program's image in memory; the linker knows it.
    static __ehdr_start: u8;
}

fn image_start() -> usize {
    (&raw const __ehdr_start).addr()
}

/// Where the shim of an entry is in the image: the same in every process that runs the same bytes.
pub(crate) fn offset_of<F: Entry<A, M>, A: Data, M>() -> u64 {
    let shim: Shim = shim::<F, A, M>;
    (shim as usize - image_start()) as u64
}

/// Runs the entry whose shim is at `offset`.
///
/// # Safety
/// `offset` comes from [`offset_of`], in a process that runs the same image.
pub(crate) unsafe fn run(offset: u64, argument: &[u8], ends: Vec<EndId>) -> Finished {
    // SAFETY: the caller's promise: the sum is the address of a function of this type.
    let shim = unsafe { std::mem::transmute::<usize, Shim>(image_start() + offset as usize) };
    shim(argument, ends)
}

fn shim<F: Entry<A, M>, A: Data, M>(argument: &[u8], ends: Vec<EndId>) -> Finished {
    // SAFETY: `F` has no bytes (asserted where it is spawned), so any aligned pointer may be read, and it has a value:
    // the one that was passed to `spawn`.
    let entry = unsafe { std::ptr::NonNull::<F>::dangling().read() };
    let (argument, unclaimed) = claiming(ends, || data::unpack::<A>(argument));
    debug_assert!(unclaimed.is_empty() || argument.is_err(), "an end was left in the arguments");
    let argument = match argument {
        Ok(argument) => argument,
        Err(error) => return failed(format!("the arguments did not arrive whole: {error}")),
    };
    pack_result(&entry.call(argument))
}

fn pack_result<R: Data>(result: &R) -> Finished {
    let packed = match data::pack(result) {
        Ok(packed) => packed,
        Err(error) => return failed(format!("the result can't be serialised: {error}")),
    };
    let bytes = packed.bytes.len();
    if bytes > ARGUMENT_BYTES_MAX {
        return failed(format!(
            "the result of {bytes} bytes is over the limit of {ARGUMENT_BYTES_MAX}: send it over a channel"
        ));
    }
    if packed.ends.len() > FRAME_ENDS_MAX {
        let ends = packed.ends.len();
        return failed(format!(
            "the result with {ends} channel ends is over the limit of {FRAME_ENDS_MAX}: send them over a channel"
        ));
    }
    if let Some(refused) = packed.ends.iter().find_map(|end| end.check_movable().err()) {
        return failed(format!("a channel end in the result can't move: {refused}"));
    }
    // From here on they are in the result, and dropping it must not close them.
    packed.ends.iter().for_each(|end| end.mark_moved());
    let ends: Vec<EndId> = packed.ends.iter().map(|end| end.id()).collect();
    Finished {
        ending: Some(EndingWord::from(&Ending::Returned)),
        result: packed.bytes,
        ends: EndId::list_to_word(&ends),
    }
}

fn failed(text: String) -> Finished {
    Finished { ending: Some(EndingWord::from(&Ending::Failed { text })), ..Finished::default() }
}

/// Runs the entry at `offset`; `None` when it panicked.
///
/// # Safety
/// As for [`run`].
pub(crate) unsafe fn run_caught(offset: u64, argument: &[u8], ends: Vec<EndId>) -> Result<Finished, String> {
    // What the entry has touched is not touched again: the process ends.
    // SAFETY: the caller's promise.
    catch_unwind(AssertUnwindSafe(|| unsafe { run(offset, argument, ends) })).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
    })
}
