/* Stand-in for Duo's PAM module: asks as pam_duo does, three times.  123456 is a good passcode; 1 or 2 is a push, which
 * is answered after the number of seconds in /run/cluster/duo-push-seconds (1 without the file; "deny" refuses it). */
#include <security/pam_modules.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int say(const struct pam_conv *conv, int style, const char *text, char **answer)
{
    struct pam_message message = {.msg_style = style, .msg = text};
    const struct pam_message *messages = &message;
    struct pam_response *response = NULL;
    int rc = conv->conv(1, &messages, &response, conv->appdata_ptr);

    if (rc == PAM_SUCCESS && answer && response)
        *answer = response->resp;
    else if (response)
        free(response->resp);
    free(response);
    return rc;
}

/* seconds until a push is answered, or -1 if it is refused */
static double push_seconds(void)
{
    char word[32] = "1";
    FILE *file = fopen("/run/cluster/duo-push-seconds", "r");

    if (file) {
        if (fscanf(file, "%31s", word) != 1)
            strcpy(word, "1");
        fclose(file);
    }
    return strcmp(word, "deny") == 0 ? -1 : atof(word);
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    const struct pam_conv *conv = NULL;
    const char *user = NULL;
    char prompt[512];

    (void)flags, (void)argc, (void)argv;
    if (pam_get_user(pamh, &user, NULL) != PAM_SUCCESS || !user ||
        pam_get_item(pamh, PAM_CONV, (const void **)&conv) != PAM_SUCCESS || !conv || !conv->conv)
        return PAM_AUTH_ERR;
    snprintf(prompt, sizeof prompt,
             "Duo two-factor login for %s\n\nEnter a passcode or select one of the following options:\n\n"
             " 1. Duo Push to XXX-XXX-1234\n 2. Phone call to XXX-XXX-1234\n\nPasscode or option (1-2): ",
             user);
    for (int i = 0; i < 3; i++) {
        char *answer = NULL;
        double seconds;
        int good, push;

        if (say(conv, PAM_PROMPT_ECHO_ON, prompt, &answer) != PAM_SUCCESS || !answer)
            return PAM_AUTH_ERR;
        good = strcmp(answer, "123456") == 0;
        push = strcmp(answer, "1") == 0 || strcmp(answer, "2") == 0;
        free(answer);
        if (push) {
            say(conv, PAM_TEXT_INFO, "Pushed a login request to your device...", NULL);
            seconds = push_seconds();
            if (seconds < 0) {
                say(conv, PAM_ERROR_MSG, "Login request denied.", NULL);
                continue;
            }
            usleep((useconds_t)(seconds * 1e6));
        }
        if (good || push) {
            say(conv, PAM_TEXT_INFO, "Success. Logging you in...", NULL);
            return PAM_SUCCESS;
        }
        say(conv, PAM_ERROR_MSG, "Incorrect passcode. Please try again.", NULL);
    }
    return PAM_AUTH_ERR;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    (void)pamh, (void)flags, (void)argc, (void)argv;
    return PAM_SUCCESS;
}
