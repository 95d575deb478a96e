//! Members of a cluster, and others, meet over loopback.

#[path = "members/authority.rs"]
mod authority;
#[path = "members/certificates.rs"]
mod certificates;
#[path = "members/enrolment.rs"]
mod enrolment;
#[path = "members/hostile.rs"]
mod hostile;
#[path = "members/site.rs"]
mod site;
#[path = "members/words.rs"]
mod words;
