//! Programs that use only the SDK; each is a file beside this one.

/// The pages of the guide, so that every program in them is compiled as a test.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../docs/index.md")]
    mod index {}
    #[doc = include_str!("../docs/first-program.md")]
    mod first_program {}
    #[doc = include_str!("../docs/spawning.md")]
    mod spawning {}
    #[doc = include_str!("../docs/channels.md")]
    mod channels {}
    #[doc = include_str!("../docs/many-ends.md")]
    mod many_ends {}
    #[doc = include_str!("../docs/connect.md")]
    mod connect {}
    #[doc = include_str!("../docs/errors.md")]
    mod errors {}
    #[doc = include_str!("../docs/what-a-child-sees.md")]
    mod what_a_child_sees {}
    #[doc = include_str!("../docs/patterns.md")]
    mod patterns {}
}
