//! The translator's home (IR, passes, code cache, emission). Nothing is here yet: the translator
//! arrives on top of the interpreter, whose `Sem` bodies it lifts.
