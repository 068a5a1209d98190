/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sandbox_rules.h"

const struct rules rules_of_build = { 0 };
