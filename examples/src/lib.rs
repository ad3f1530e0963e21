//! Nothing here: the programs stand beside this folder.
