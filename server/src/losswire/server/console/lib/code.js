/** The same evaluation as code in other languages. */
