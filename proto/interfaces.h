/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The interface files as strings; made from the .varlink files by embed.py.
 */

extern const char interface_events[];
extern const char interface_manager[];
extern const char interface_service[];
