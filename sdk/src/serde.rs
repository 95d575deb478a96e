//! Types that have only serde's derives.

use rkyv::{
    Archive, Deserialize, Place, Portable, Serialize,
    bytecheck::CheckBytes,
    rancor::{Fallible, ResultExt, Source},
    ser::{Allocator, Writer},
    vec::{ArchivedVec, VecResolver},
};
use serde::{Serialize as SerdeSerialize, de::DeserializeOwned};

/// Wraps a value whose type has serde's derives and not rkyv's, so that it can be sent.
///
/// It travels encoded by `postcard`, and so costs an encoding, an allocation and a decoding, which a type with
/// `#[archean::data]` does not. It can't hold ends of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Serde<T>(pub T);

/// A [`Serde`] in a message: the encoded bytes.
#[derive(Debug, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[rkyv(crate = rkyv)]
#[repr(transparent)]
pub struct ArchivedSerde(ArchivedVec<u8>);

impl ArchivedSerde {
    /// Decodes the value.
    ///
    /// # Errors
    /// An error of `postcard`, when the type's two derives do not fit each other.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, postcard::Error> {
        postcard::from_bytes(self.0.as_slice())
    }
}

impl<T> Archive for Serde<T> {
    type Archived = ArchivedSerde;
    type Resolver = (VecResolver, usize);

    fn resolve(&self, (resolver, len): Self::Resolver, out: Place<ArchivedSerde>) {
        rkyv::munge::munge!(let ArchivedSerde(bytes) = out);
        ArchivedVec::resolve_from_len(len, resolver, bytes);
    }
}

impl<T, S> Serialize<S> for Serde<T>
where
    T: SerdeSerialize,
    S: Fallible<Error: Source> + Writer + Allocator + ?Sized,
{
    fn serialize(&self, serialiser: &mut S) -> Result<Self::Resolver, S::Error> {
        let bytes = postcard::to_stdvec(&self.0).into_error()?;
        Ok((ArchivedVec::serialize_from_slice(&bytes, serialiser)?, bytes.len()))
    }
}

impl<T, D> Deserialize<Serde<T>, D> for ArchivedSerde
where
    T: DeserializeOwned,
    D: Fallible<Error: Source> + ?Sized,
{
    fn deserialize(&self, _: &mut D) -> Result<Serde<T>, D::Error> {
        self.decode().map(Serde).into_error()
    }
}
