/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A target under libFuzzer, which has main(). */

#include "fuzz.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
        (void)argc;
        (void)argv;
        if (fuzz_target.begin)
                fuzz_target.begin();
        return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        fuzz_target.input(data, size);
        return 0;
}
